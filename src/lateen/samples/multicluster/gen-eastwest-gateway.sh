#!/bin/sh
# Prints the installation of an east-west gateway, through which other networks reach the services of this one:
#   gen-eastwest-gateway.sh --network network1 | lateen install -y -f -
# Flags are those of Istio's script of the same name. --cluster says which cluster the gateway is in, as istiod knows it;
# --mesh is part of the installation of istiod.
set -eu
network="" revision="" cluster=""
while [ $# -gt 0 ]; do
  case "$1" in
    --network) network="$2"; shift 2 ;;
    --revision) revision="$2"; shift 2 ;;
    --cluster) cluster="$2"; shift 2 ;;
    --mesh) shift 2 ;;
    *) echo "unknown flag $1; known are --network, --revision, --mesh, --cluster" >&2; exit 1 ;;
  esac
done
[ -n "$network" ] || { echo "say which network the gateway leads to: --network network1" >&2; exit 1; }
cat <<EOF
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
metadata:
  name: eastwest
spec:
  revision: "$revision"
  profile: empty
  components:
    ingressGateways:
      - name: istio-eastwestgateway
        label:
          istio: eastwestgateway
          app: istio-eastwestgateway
          topology.istio.io/network: $network
        enabled: true
        k8s:
          service:
            ports:
              - name: status-port
                port: 15021
              - name: tls
                port: 15443
              - name: tls-certificates
                port: 15010
              - name: tls-istiod
                port: 15012
              - name: tls-webhook
                port: 15017
  values:
    global:
      network: $network
EOF
[ -z "$cluster" ] || echo "      multiCluster: {clusterName: $cluster}"
