// What a Go controller of today does with a cluster, with client-go's defaults: protobuf bodies, informers with
// WatchList, leader election, server-side apply. One line for each step; exit code 1 where one fails.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	appsapply "k8s.io/client-go/applyconfigurations/apps/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	metaapply "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/retry"
)

const namespace = "client-go"

type clients struct {
	typed    kubernetes.Interface
	dynamic  dynamic.Interface
	metadata metadata.Interface
}

type step struct {
	name string
	run  func(context.Context, clients) error
}

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		fmt.Println("FAIL kubeconfig:", err)
		os.Exit(1)
	}
	c := clients{
		kubernetes.NewForConfigOrDie(config), dynamic.NewForConfigOrDie(config), metadata.NewForConfigOrDie(config),
	}
	failed := false
	for _, s := range []step{
		{"create a namespace", createNamespace},
		{"create kinds as protobuf", createKinds},
		{"informers see what is there and what changes", informer},
		{"a metadata informer", metadataInformer},
		{"update after a conflict", conflictAndRetry},
		{"server-side apply", apply},
		{"server-side apply of an unstructured object", applyUnstructured},
		{"leader election", elect},
		{"a certificate by typed calls", certificate},
		{"a policy and an autoscaler of version 1", policyAndAutoscaler},
		{"an event of events.k8s.io", event},
		{"delete the namespace", deleteNamespace},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		if err := s.run(ctx, c); err != nil {
			fmt.Printf("FAIL %s: %v\n", s.name, err)
			failed = true
		} else {
			fmt.Println("ok  ", s.name)
		}
		cancel()
	}
	if failed {
		os.Exit(1)
	}
}

func createNamespace(ctx context.Context, c clients) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	_, err := c.typed.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{FieldManager: "test"})
	return err
}

func deployment(name string) *appsv1.Deployment {
	none, labels := int32(0), map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &none,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "lateen/sleep"}}},
			},
		},
	}
}

func createKinds(ctx context.Context, c clients) error {
	o := metav1.CreateOptions{}
	if _, err := c.typed.AppsV1().Deployments(namespace).Create(ctx, deployment("web"), o); err != nil {
		return err
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}, Selector: map[string]string{"app": "web"}},
	}
	if _, err := c.typed.CoreV1().Services(namespace).Create(ctx, service, o); err != nil {
		return err
	}
	prefix := networkingv1.PathTypePrefix
	backend := networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}
	paths := []networkingv1.HTTPIngressPath{
		{Path: "/", PathType: &prefix, Backend: networkingv1.IngressBackend{Service: &backend}},
	}
	rule := networkingv1.IngressRule{Host: "a.example.com"}
	rule.HTTP = &networkingv1.HTTPIngressRuleValue{Paths: paths}
	ingress := &networkingv1.Ingress{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{rule}},
	}
	_, err := c.typed.NetworkingV1().Ingresses(namespace).Create(ctx, ingress, o)
	return err
}

func informer(ctx context.Context, c clients) error {
	factory := informers.NewSharedInformerFactoryWithOptions(c.typed, 0, informers.WithNamespace(namespace))
	maps := factory.Core().V1().ConfigMaps()
	seen := make(chan string, 100)
	_, err := maps.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { seen <- "added " + o.(*corev1.ConfigMap).Name },
		UpdateFunc: func(_, o any) { seen <- "updated " + o.(*corev1.ConfigMap).Name },
		DeleteFunc: func(o any) { seen <- "deleted " + o.(*corev1.ConfigMap).Name },
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), maps.Informer().HasSynced) {
		return errors.New("the cache has not been filled")
	}
	all := c.typed.CoreV1().ConfigMaps(namespace)
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Data: map[string]string{"a": "1"}}
	made, err := all.Create(ctx, m, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	made.Data["a"] = "2"
	if _, err = all.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
		return err
	}
	if err = all.Delete(ctx, "m", metav1.DeleteOptions{}); err != nil {
		return err
	}
	for _, wanted := range []string{"added m", "updated m", "deleted m"} {
		if err := expect(ctx, seen, wanted); err != nil {
			return err
		}
	}
	return nil
}

func expect(ctx context.Context, seen <-chan string, wanted string) error {
	for {
		select {
		case got := <-seen:
			if got == wanted {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("%q has not been seen", wanted)
		}
	}
}

func metadataInformer(ctx context.Context, c clients) error {
	resource := schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	factory := metadatainformer.NewFilteredSharedInformerFactory(c.metadata, 0, namespace, nil)
	found := factory.ForResource(resource)
	informer := found.Informer()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return errors.New("the cache has not been filled")
	}
	if n := len(informer.GetStore().List()); n != 1 {
		return fmt.Errorf("%d deployments instead of 1", n)
	}
	return nil
}

func conflictAndRetry(ctx context.Context, c clients) error {
	all := c.typed.AppsV1().Deployments(namespace)
	stale, err := all.Get(ctx, "web", metav1.GetOptions{})
	if err != nil {
		return err
	}
	fresh := stale.DeepCopy()
	fresh.Annotations = map[string]string{"a": "1"}
	if _, err = all.Update(ctx, fresh, metav1.UpdateOptions{}); err != nil {
		return err
	}
	stale.Annotations = map[string]string{"b": "2"}
	if _, err = all.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		return fmt.Errorf("a stale update got %v", err)
	}
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		now, err := all.Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		now.Annotations["b"] = "2"
		_, err = all.Update(ctx, now, metav1.UpdateOptions{})
		return err
	})
}

func apply(ctx context.Context, c clients) error {
	all, labels := c.typed.AppsV1().Deployments(namespace), map[string]string{"app": "applied"}
	container := coreapply.Container().WithName("c").WithImage("lateen/sleep").
		WithPorts(coreapply.ContainerPort().WithContainerPort(80))
	template := coreapply.PodTemplateSpec().WithLabels(labels).WithSpec(coreapply.PodSpec().WithContainers(container))
	spec := appsapply.DeploymentSpec().WithReplicas(0).WithTemplate(template).
		WithSelector(metaapply.LabelSelector().WithMatchLabels(labels))
	config := appsapply.Deployment("applied", namespace).WithSpec(spec)
	if _, err := all.Apply(ctx, config, metav1.ApplyOptions{FieldManager: "first"}); err != nil {
		return err
	}
	other := appsapply.Deployment("applied", namespace).WithSpec(appsapply.DeploymentSpec().WithReplicas(1))
	_, err := all.Apply(ctx, other, metav1.ApplyOptions{FieldManager: "second"})
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), ".spec.replicas") {
		return fmt.Errorf("a conflict got %v", err)
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details.Causes[0].Type != metav1.CauseTypeFieldManagerConflict {
		return fmt.Errorf("the conflict has no cause: %v", err)
	}
	other.Spec.WithReplicas(0)
	if _, err = all.Apply(ctx, other, metav1.ApplyOptions{FieldManager: "second"}); err != nil {
		return err
	}
	found, err := all.Get(ctx, "applied", metav1.GetOptions{})
	if err != nil {
		return err
	}
	mine, err := appsapply.ExtractDeployment(found, "second")
	if err != nil {
		return err
	}
	if mine.Spec == nil || mine.Spec.Replicas == nil || mine.Spec.Template != nil {
		return fmt.Errorf("what the second manager holds is %+v", mine.Spec)
	}
	return nil
}

func applyUnstructured(ctx context.Context, c clients) error {
	resource := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	obj := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "u"}, "data": map[string]any{"a": "1"},
	}}
	made, err := c.dynamic.Resource(resource).Namespace(namespace).
		Apply(ctx, "u", obj, metav1.ApplyOptions{FieldManager: "dynamic"})
	if err != nil {
		return err
	}
	if entries := made.GetManagedFields(); len(entries) != 1 || entries[0].Operation != "Apply" {
		return fmt.Errorf("managed fields are %v", entries)
	}
	return nil
}

// elect lets two candidates run for a lease: the second leads when the first has released it.
func elect(ctx context.Context, c clients) error {
	leading := make(chan string, 10)
	candidate := func(ctx context.Context, id string) {
		lock := &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: "leader", Namespace: namespace},
			Client:     c.typed.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: id},
		}
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, ReleaseOnCancel: true,
			LeaseDuration: 6 * time.Second, RenewDeadline: 4 * time.Second, RetryPeriod: 500 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leading <- id },
				OnStoppedLeading: func() {},
			},
		})
	}
	first, release := context.WithCancel(ctx)
	defer release()
	go candidate(first, "first")
	if err := expect(ctx, leading, "first"); err != nil {
		return err
	}
	second, end := context.WithCancel(ctx)
	defer end()
	go candidate(second, "second")
	release()
	return expect(ctx, leading, "second")
}

func certificate(ctx context.Context, c clients) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	raw, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "gopher", Organization: []string{"dev"}},
	}, key)
	if err != nil {
		return err
	}
	all := c.typed.CertificatesV1().CertificateSigningRequests()
	defer all.Delete(context.Background(), "gopher", metav1.DeleteOptions{})
	csr, err := all.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "gopher"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: raw}),
			SignerName: certificatesv1.KubeAPIServerClientSignerName,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test", Message: "approved",
	})
	if _, err := all.UpdateApproval(ctx, "gopher", csr, metav1.UpdateOptions{}); err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		csr, err := all.Get(ctx, "gopher", metav1.GetOptions{})
		if err != nil || len(csr.Status.Certificate) == 0 {
			return false, err
		}
		block, _ := pem.Decode(csr.Status.Certificate)
		made, err := x509.ParseCertificate(block.Bytes)
		if err == nil && (made.Subject.CommonName != "gopher" || made.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth) {
			err = fmt.Errorf("the certificate is for %v, %v", made.Subject, made.ExtKeyUsage)
		}
		return true, err
	})
}

func policyAndAutoscaler(ctx context.Context, c clients) error {
	admission, name := c.typed.AdmissionregistrationV1(), metav1.ObjectMeta{Name: "gopher"}
	defer admission.ValidatingAdmissionPolicies().Delete(context.Background(), "gopher", metav1.DeleteOptions{})
	defer admission.ValidatingAdmissionPolicyBindings().Delete(context.Background(), "gopher", metav1.DeleteOptions{})
	rule := admissionv1.NamedRuleWithOperations{RuleWithOperations: admissionv1.RuleWithOperations{
		Operations: []admissionv1.OperationType{admissionv1.Create},
		Rule: admissionv1.Rule{
			APIGroups: []string{"autoscaling"}, APIVersions: []string{"*"}, Resources: []string{"horizontalpodautoscalers"},
		},
	}}
	if _, err := admission.ValidatingAdmissionPolicies().Create(ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: name,
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{rule}},
			Validations:      []admissionv1.Validation{{Expression: "object.spec.maxReplicas < 5"}},
		},
	}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := admission.ValidatingAdmissionPolicyBindings().Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: name,
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: "gopher", ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}, metav1.CreateOptions{}); err != nil {
		return err
	}
	percent := int32(70)
	scaler := &autoscalingv1.HorizontalPodAutoscaler{
		ObjectMeta: name,
		Spec: autoscalingv1.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "x"},
			MaxReplicas:    9, TargetCPUUtilizationPercentage: &percent,
		},
	}
	all := c.typed.AutoscalingV1().HorizontalPodAutoscalers(namespace)
	if _, err := all.Create(ctx, scaler, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		return fmt.Errorf("nine replicas: %v", err)
	}
	scaler.Spec.MaxReplicas = 4
	if _, err := all.Create(ctx, scaler, metav1.CreateOptions{}); err != nil {
		return err
	}
	newer, err := c.typed.AutoscalingV2().HorizontalPodAutoscalers(namespace).Get(ctx, "gopher", metav1.GetOptions{})
	if err == nil && *newer.Spec.Metrics[0].Resource.Target.AverageUtilization != percent {
		err = fmt.Errorf("version 2 says %v", newer.Spec.Metrics)
	}
	return err
}

func event(ctx context.Context, c clients) error {
	made, err := c.typed.EventsV1().Events(namespace).Create(ctx, &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "gopher"},
		EventTime:  metav1.NowMicro(), ReportingController: "example.com/gopher", ReportingInstance: "gopher-1",
		Action: "Testing", Reason: "Tested", Note: "it works", Type: corev1.EventTypeNormal,
		Regarding: corev1.ObjectReference{Kind: "Namespace", Namespace: namespace, Name: namespace},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	older, err := c.typed.CoreV1().Events(namespace).Get(ctx, made.Name, metav1.GetOptions{})
	if err == nil && older.Message != "it works" {
		err = fmt.Errorf("the core group says %q", older.Message)
	}
	return err
}

func deleteNamespace(ctx context.Context, c clients) error {
	all := c.typed.CoreV1().Namespaces()
	if err := all.Delete(ctx, namespace, metav1.DeleteOptions{}); err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		_, err := all.Get(ctx, namespace, metav1.GetOptions{})
		return apierrors.IsNotFound(err), nil
	})
}
