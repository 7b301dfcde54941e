// The stand-in for the image echo-advanced: a server that tells what it was asked, and a client ("client URL …") that
// prints what it was answered. The suite runs the client in a pod and reads lines of the form "[0 body] Name=value".
//
// The suite's expectations are in sigs.k8s.io/gateway-api/conformance/utils/echo.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	arguments := os.Args[1:]
	run := serve
	if filepath.Base(os.Args[0]) == "client" {
		run = ask
	}
	if err := run(arguments); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
