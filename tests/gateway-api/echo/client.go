package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	pb "sigs.k8s.io/gateway-api/conformance/echo-basic/grpcechoserver"
)

const limit = 10 * time.Second

type question struct {
	url     *url.URL
	method  string
	headers [][2]string
	count   int
}

// ask sends what its arguments say: URL, --method=M, --count=N, -H name:value. The answers are separated by blank lines.
func ask(arguments []string) error {
	q, err := parse(arguments)
	if err != nil {
		return err
	}
	send := sender(q)
	for i := range q.count {
		lines, err := send()
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Println()
		}
		for _, line := range lines {
			fmt.Printf("[%d%s\n", i, line)
		}
	}
	return nil
}

func parse(arguments []string) (question, error) {
	q := question{method: http.MethodGet, count: 1}
	var err error
	for i := 0; i < len(arguments); i++ {
		name, value, given := strings.Cut(arguments[i], "=")
		switch {
		case name == "--method" && given:
			q.method = value
		case name == "--count" && given:
			q.count, err = strconv.Atoi(value)
		case name == "-H" && i+1 < len(arguments):
			i++
			key, header, _ := strings.Cut(arguments[i], ":")
			q.headers = append(q.headers, [2]string{key, header})
		case !strings.HasPrefix(arguments[i], "-"):
			q.url, err = url.Parse(arguments[i])
		default:
			err = fmt.Errorf("unknown argument %s", arguments[i])
		}
		if err != nil {
			return q, err
		}
	}
	if q.url == nil {
		return q, fmt.Errorf("no URL given")
	}
	return q, nil
}

func sender(q question) func() ([]string, error) {
	if q.url.Scheme == "grpc" {
		return func() ([]string, error) { return call(q) }
	}
	client := &http.Client{
		Timeout:       limit,
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func() ([]string, error) { return request(client, q) }
}

func request(client *http.Client, q question) ([]string, error) {
	r, err := http.NewRequest(q.method, q.url.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range q.headers {
		if strings.EqualFold(h[0], "Host") {
			r.Host = h[1]
		} else {
			r.Header.Add(h[0], h[1])
		}
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	lines := []string{"] StatusCode=" + strconv.Itoa(answer.StatusCode)}
	names := make([]string, 0, len(answer.Header))
	for name := range answer.Header {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		for _, value := range answer.Header[name] {
			lines = append(lines, "] ResponseHeader="+name+":"+value)
		}
	}
	for line := range strings.Lines(string(body)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, " body] "+line)
		}
	}
	return lines, nil
}

func call(q question) ([]string, error) {
	connection, err := grpc.NewClient(q.url.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for _, h := range q.headers {
		ctx = metadata.AppendToOutgoingContext(ctx, h[0], h[1])
	}
	answer, err := pb.NewGrpcEchoClient(connection).Echo(ctx, &pb.EchoRequest{})
	if err != nil {
		return nil, err
	}
	found := answer.GetAssertions()
	lines := []string{"] StatusCode=200", " body] Host=" + found.GetAuthority()}
	for _, h := range found.GetHeaders() {
		lines = append(lines, " body] RequestHeader="+h.GetKey()+":"+h.GetValue())
	}
	return append(lines, " body] Hostname="+found.GetContext().GetPod()), nil
}
