package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"
	"google.golang.org/grpc"
	pb "sigs.k8s.io/gateway-api/conformance/echo-basic/grpcechoserver"
)

// serve takes the arguments --port, --grpc, --tcp (each maybe several times) and --tls, which says which of the HTTP
// ports speaks TLS; --crt and --key are files of the original image, so the certificate is made here.
func serve(arguments []string) error {
	ports, encrypted := []string{}, map[string]bool{}
	failed := make(chan error)
	for _, a := range arguments {
		name, value, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		switch name {
		case "port":
			ports = append(ports, value)
		case "tls":
			encrypted[value] = true
		case "grpc":
			go func() { failed <- serveGRPC(value) }()
		case "tcp":
			go func() { failed <- serveTCP(value) }()
		case "crt", "key":
		default:
			return fmt.Errorf("unknown argument %s", a)
		}
	}
	if len(arguments) == 0 {
		ports = append(ports, "8080")
	}
	for _, port := range ports {
		go func() { failed <- serveHTTP(port, encrypted[port]) }()
	}
	return <-failed
}

func serveHTTP(port string, encrypted bool) error {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { tell(w, r, port) })
	server := &http.Server{Addr: ":" + port, Handler: h2c.NewHandler(handler, &http2.Server{})}
	if !encrypted {
		return server.ListenAndServe()
	}
	own, err := certificate()
	if err != nil {
		return err
	}
	server.TLSConfig = &tls.Config{Certificates: []tls.Certificate{own}}
	return server.ListenAndServeTLS("", "")
}

func tell(w http.ResponseWriter, r *http.Request, port string) {
	from, _, _ := net.SplitHostPort(r.RemoteAddr)
	lines := []string{
		"ServiceVersion=" + os.Getenv("SERVICE_VERSION"),
		"ServicePort=" + port,
		"Host=" + r.Host,
		"URL=" + r.URL.RequestURI(),
		"Method=" + r.Method,
		"Proto=" + r.Proto,
		"IP=" + from,
	}
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		for _, value := range r.Header[name] {
			lines = append(lines, "RequestHeader="+name+":"+value)
		}
	}
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprintln(w, strings.Join(append(lines, "Hostname="+hostname()), "\n"))
}

// The host's name of a pod is the pod's.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		log.Fatal(err)
	}
	return name
}

func serveGRPC(port string) error {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	pb.RegisterGrpcEchoServer(server, echo{})
	return server.Serve(listener)
}

func serveTCP(port string) error {
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer connection.Close()
			fmt.Fprintf(connection, "Hostname=%s\n", hostname())
		}()
	}
}

func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "echo"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		DNSNames:     []string{"echo"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
