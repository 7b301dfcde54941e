"""The tests of the Gateway API notice where a feature is taken out of the translator.

Each row replaces one function of the translator by one that leaves the feature out, and names a test that must fail.
"""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import test_gateway_api as routes
import test_gateway_api_sessions as sessions
import test_gateway_api_sets as sets
import test_gateway_api_standings as standings

from lateen.kit.derived import Shared
from lateen.mesh import gateway_routes
from lateen.mesh.backend_policies import BackendPolicies
from lateen.mesh.dialects.gateway_api import attaching, backends, listeners, settings, templates
from lateen.mesh.dialects.gateway_api import faults as listener_faults
from lateen.mesh.gateway_routes import GatewayRoutes
from lateen.mesh.sending import Sendings
from lateen.xds.routes import gateway, virtual_host

_SUITE = importlib.util.spec_from_file_location("mutants", Path(__file__).parents[1] / "gateway-api" / "mutants.py")
_mutants = importlib.util.module_from_spec(_SUITE)
_SUITE.loader.exec_module(_mutants)
MUTANTS = _mutants.MUTANTS
OUT = [
    ("the order of matches", templates, "_http_rank", lambda m: (0,), routes.test_matches_of_all_routes_are_ordered_by_how_narrow_they_are),
    ("the age of routes", templates, "in_order", lambda found: tuple(f[-1] for f in sorted(found, key=lambda f: (f[0], [-ord(c) for c in f[1][0]]))), routes.test_the_older_route_comes_first_among_equal_matches),
    ("hostnames of routes", listeners, "shared_hosts", lambda li, names: (li.hostname or "*",), routes.test_hosts_are_where_the_hostnames_of_listener_and_route_meet),
    ("isolation of listeners", listeners, "isolated", lambda li, others, hosts: tuple(hosts), routes.test_a_request_belongs_to_the_narrowest_listener_alone),
    ("grants for backends", GatewayRoutes, "_may_use_backend", lambda *_: True, routes.test_a_backend_of_another_namespace_needs_a_grant_there),
    ("shares of broken backends", virtual_host, "_broken_share", lambda route: [], routes.test_a_broken_backend_answers_500_for_its_share),
    ("redirects", settings, "_redirect", lambda given: None, routes.test_a_redirect_keeps_the_listeners_port_unless_it_has_a_scheme_or_a_port),
    ("rewrites", settings, "rewrite", lambda given, match: None, routes.test_a_prefix_is_replaced_by_whole_elements),
    ("time limits", settings, "_retries", lambda given, each: None, routes.test_the_time_limit_of_one_attempt_holds_without_retries_too),
    ("methods of gRPC", templates, "_grpc_path", lambda m: None, routes.test_a_grpc_method_is_a_path),
    ("misdirected requests", templates, "misdirected", lambda gateway, port: None, routes.test_a_request_on_the_connection_of_another_listener_is_misdirected),
    ("routes of the mesh", GatewayRoutes, "mesh_requests", lambda *_: None, routes.test_a_route_of_a_service_is_for_all_its_clients),
    ("filters of backends", settings, "of_route", lambda filters: (), routes.test_a_backend_with_filters_of_its_own_has_its_share_of_the_requests),
    ("mirrors", templates, "_mirrors", lambda *_: iter(()), routes.test_a_backend_with_filters_of_its_own_has_its_share_of_the_requests),
    ("listeners of sets", gateway_routes, "SET_PARENT", ("", ""), sets.test_a_listener_set_adds_listeners_whose_routes_are_its_own),
    ("clients' certificates", listeners, "frontend", lambda gateway, li: None, sets.test_clients_of_https_listeners_show_a_certificate_of_the_authorities_that_the_gateway_names),
    ("TLS to backends", BackendPolicies, "backend_tls", lambda *_: (), sets.test_a_gateway_speaks_tls_to_a_backend_and_verifies_it),
    ("sessions that stay with a backend", templates, "_by_cookie", lambda rule: False, sessions.test_clients_stay_with_the_backend_that_weights_have_given_them),
    ("policies of backends", Sendings, "sending_to", lambda *_: None, sessions.test_a_policy_limits_retries_unless_a_destination_rule_does),
    ("why no listener takes a route", attaching, "_SEVERITY", (attaching.NO_PARENT, attaching.NO_HOSTNAME, attaching.NOT_ALLOWED), standings.test_a_route_is_told_why_no_listener_takes_it),
    ("conflicts of protocols", listener_faults, "_between", lambda li, rivals: iter(()), standings.test_listeners_of_one_port_and_several_protocols_are_in_conflict_and_the_others_work),
    ("ports of Services", backends, "_service", lambda *_: (("", ""), None), routes.test_a_port_that_a_service_does_not_have_and_a_kind_that_is_no_backend_are_named),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name", "without", "test"), [r[1:] for r in OUT], ids=[r[0] for r in OUT])
def test_a_feature_that_is_taken_out_is_missed(monkeypatch, module, name, without, test):
    test()
    monkeypatch.setattr(gateway, "_kept_hosts", Shared())  # else the hosts of equal routes are there already
    monkeypatch.setattr(module, name, without)
    with pytest.raises((AssertionError, KeyError, ValueError, AttributeError, IndexError, TypeError)):
        test()


@pytest.mark.parametrize("name", MUTANTS)
def test_the_conformance_suites_mutants_replace_what_is_there(name):
    found = MUTANTS[name]
    owner = importlib.import_module(f"lateen.{found.path.removesuffix('.py').replace('/', '.')}")
    replaced = re.match(r"def (\w+)\(|(\w+)\.(\w+) = ", found.without)
    if replaced[2]:
        assert hasattr(getattr(owner, replaced[2]), replaced[3])
    else:
        assert hasattr(owner, replaced[1])
