#!/usr/bin/env bash
# Remove Bookinfo and its rules from a namespace; asks for the namespace unless $NAMESPACE is set.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kubectl=${KUBECTL:-kubectl}

if [ -z "${NAMESPACE:-}" ]; then
  printf 'namespace ? [default] '
  read -r NAMESPACE || true
fi
NAMESPACE=${NAMESPACE:-default}
echo "using NAMESPACE=${NAMESPACE}"

for kind in destinationrules virtualservices gateways; do
  for name in $("$kubectl" get -n "$NAMESPACE" "$kind" -o jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}' 2>/dev/null); do
    case "$name" in
    bookinfo | bookinfo-gateway | productpage | reviews | ratings | details)
      "$kubectl" delete -n "$NAMESPACE" "$kind" "$name"
      ;;
    esac
  done
done

if "$kubectl" delete -n "$NAMESPACE" --ignore-not-found=true -f "$here/bookinfo.yaml"; then
  echo "Application cleanup successful"
else
  echo "Application cleanup failed; what is left: $kubectl get all -n $NAMESPACE" >&2
  exit 1
fi
