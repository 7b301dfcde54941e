package main

import (
	"context"

	"google.golang.org/grpc/metadata"
	pb "sigs.k8s.io/gateway-api/conformance/echo-basic/grpcechoserver"
)

type echo struct{ pb.UnimplementedGrpcEchoServer }

func (echo) Echo(ctx context.Context, request *pb.EchoRequest) (*pb.EchoResponse, error) {
	given, _ := metadata.FromIncomingContext(ctx)
	found := &pb.Assertions{Context: &pb.Context{Pod: hostname()}}
	for name, values := range given {
		for _, value := range values {
			found.Headers = append(found.Headers, &pb.Header{Key: name, Value: value})
		}
	}
	if names := given.Get(":authority"); len(names) > 0 {
		found.Authority = names[0]
	}
	return &pb.EchoResponse{Request: request, Assertions: found}, nil
}
