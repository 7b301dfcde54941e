#!/bin/sh
# Runs the sidecar of this machine, as root, beside the files of `lateen x workload entry configure`:
#   sidecar.sh        redirects the machine's traffic and runs pilot-agent until it is told to stop
#   sidecar.sh redirect   only redirects it
#   sidecar.sh stop   takes the redirection back
#   sidecar.sh stopped UNIT   the same, if systemd has stopped the unit because it was told to
# Needs: pilot-agent and envoy (pip install lateen), iptables, setpriv (util-linux).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
set -a
. "$here/cluster.env"
set +a
user=1337 # what it sends is not redirected; it may do nothing else
for program in pilot-agent iptables setpriv; do
  command -v $program >/dev/null || {
    echo "$program is not on the path; it takes pip install lateen (in /opt/lateen), and the packages iptables and util-linux" >&2
    exit 1
  }
done
case "${1:-run}" in
run | redirect) ;;
stopped)
  # After a crash, and on the way to another start, the rules stay: else the ports of applications would take plain
  # connections until the next sidecar is there.
  case "$(systemctl list-jobs --no-legend "$2")" in *" stop "*) exec pilot-agent istio-clean-iptables ;; esac
  exit 0
  ;;
*) exec pilot-agent istio-clean-iptables ;;
esac
# what an earlier start has left is replaced at once
pilot-agent istio-iptables -u $user -i "$ISTIO_SERVICE_CIDR" -b "$ISTIO_INBOUND_PORTS" -d "$ISTIO_LOCAL_EXCLUDE_PORTS"
[ "${1:-run}" = run ] || exit 0
export INSTANCE_IP="${INSTANCE_IP:-$(hostname -I | cut -d ' ' -f 1)}"
[ -n "$INSTANCE_IP" ] || {
  echo "this machine has no address yet; if it never gets one by itself, set INSTANCE_IP in $here/cluster.env" >&2
  exit 1
}
install -d -o $user -g $user /etc/istio/proxy
install -d /var/run/secrets/istio /var/run/secrets/tokens
install -m 644 "$here/root-cert.pem" /var/run/secrets/istio/root-cert.pem
install -o $user -m 600 "$here/istio-token" /var/run/secrets/tokens/istio-token
exec setpriv --reuid $user --regid $user --clear-groups pilot-agent proxy sidecar
