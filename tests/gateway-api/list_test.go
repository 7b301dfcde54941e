package gatewayapi

import (
	"encoding/json"
	"os"
	"testing"

	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

var profiles = []suite.ConformanceProfile{
	suite.GatewayHTTPConformanceProfile,
	suite.GatewayGRPCConformanceProfile,
	suite.GatewayTLSConformanceProfile,
	suite.GatewayTCPConformanceProfile,
	suite.GatewayUDPConformanceProfile,
	suite.MeshHTTPConformanceProfile,
	suite.MeshGRPCConformanceProfile,
}

// TestList writes what the suite has to the file that LIST names: for each test the features that it needs, and by
// profile whether it is a core or an extended test, as the suite's own reports count it. Needs no cluster.
func TestList(t *testing.T) {
	path := os.Getenv("LIST")
	if path == "" {
		t.Skip("LIST names no file")
	}
	type listed struct {
		Features []string          `json:"features"`
		Profiles map[string]string `json:"profiles"`
	}
	out := map[string]listed{}
	for _, test := range tests.ConformanceTests {
		found := listed{Profiles: map[string]string{}}
		for _, f := range test.Features {
			found.Features = append(found.Features, string(f))
		}
		for _, p := range profiles {
			if p.CoreFeatures.HasAll(test.Features...) {
				found.Profiles[string(p.Name)] = "core"
			} else if p.CoreFeatures.Union(p.ExtendedFeatures).HasAll(test.Features...) {
				found.Profiles[string(p.Name)] = "extended"
			}
		}
		out[test.ShortName] = found
	}
	text, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
