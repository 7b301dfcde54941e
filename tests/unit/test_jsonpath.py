"""kubectl's jsonpath dialect; what is expected was printed by kubectl 1.32."""

import pytest

from lateen.kit import jsonpath

VALUE = {
    "items": [
        {"metadata": {"name": "a", "labels": {"app.io/x": "1"}}, "ports": [{"name": "http", "port": 80}]},
        {"metadata": {"name": "b"}, "ports": [{"name": "https", "port": 443}]},
    ]
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{.items[0].metadata.name}", "a"),
        ("{.items[*].metadata.name}", "a b"),
        ("{.items[-1].metadata.name}", "b"),
        (".items[0].metadata.name", "a"),
        ("{.items[0].metadata.labels.app\\.io/x}", "1"),
        ("{.items[0].metadata.labels['app.io/x']}", "1"),
        ('{.items[0].ports[?(@.name=="http")].port}', "80"),
        ("{.items[*].ports[?(@.port!=80)].name}", "https"),
        ('{range .items[*]}{.metadata.name}{"\\t"}{.ports[0].port}{"\\n"}{end}', "a\t80\nb\t443\n"),
        ("x{.items[0].ports}y", 'x[{"name":"http","port":80}]y'),
        ("{.nothing.here}", ""),
    ],
)
def test_a_template_is_rendered_as_kubectl_does(template, expected):
    assert jsonpath.render(template, VALUE) == expected


@pytest.mark.parametrize("template", ["{.items[", "{.items[x]}", "{.a}{"])
def test_a_template_that_cannot_be_read_is_refused(template):
    with pytest.raises(jsonpath.PathError):
        jsonpath.render(template, VALUE)
