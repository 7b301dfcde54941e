// Package gatewayapi runs the Gateway API's conformance suite against the cluster that KUBECONFIG names. run.py prepares
// that cluster and passes the suite's own flags.
package gatewayapi

import (
	"context"
	"strings"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/gateway-api/conformance"
)

const meshPrefix = "gateway-conformance-mesh"

func TestConformance(t *testing.T) {
	options := conformance.DefaultOptions(t)
	options.Client = injecting{options.Client}
	conformance.RunConformanceWithOptions(t, options)
}

// injecting labels the suite's mesh namespaces for injection. The suite's flag -namespace-labels would put a sidecar
// beside every backend of the Gateway tests, too, which they do not need.
type injecting struct{ client.Client }

func (c injecting) Create(ctx context.Context, obj client.Object, opts ...client.CreateOption) error {
	label(obj)
	return c.Client.Create(ctx, obj, opts...)
}

func (c injecting) Update(ctx context.Context, obj client.Object, opts ...client.UpdateOption) error {
	label(obj)
	return c.Client.Update(ctx, obj, opts...)
}

func label(obj client.Object) {
	if obj.GetObjectKind().GroupVersionKind().Kind != "Namespace" || !strings.HasPrefix(obj.GetName(), meshPrefix) {
		return
	}
	labels := map[string]string{"istio-injection": "enabled"}
	for k, v := range obj.GetLabels() {
		labels[k] = v
	}
	obj.SetLabels(labels)
}
