"""The certificate authority: roots, signing, SPIFFE identities."""
