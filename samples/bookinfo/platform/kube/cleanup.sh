#!/bin/sh
# Remove Bookinfo and its routing rules from a namespace: cleanup.sh [NAMESPACE]
set -u
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -ge 1 ]; then
  namespace=$1
else
  printf 'namespace ? [default] '
  read -r namespace || namespace=
  [ -n "$namespace" ] || namespace=default
fi
echo "using NAMESPACE=$namespace"
kubectl delete -n "$namespace" virtualservices.networking.istio.io,destinationrules.networking.istio.io,gateways.networking.istio.io --all --ignore-not-found=true
kubectl delete -n "$namespace" --ignore-not-found=true -f "$here/bookinfo.yaml"
echo "Application cleanup successful"
