"""The access logger of ``lateen x tap``: off until the agent sets its runtime key (``wire.tap``)."""

from __future__ import annotations

from functools import cache

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import substitution_format_string_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2

from lateen.wire import tap
from lateen.xds import pb
from lateen.xds.access_log import formatters


@cache
def logger(server: bool) -> accesslog_pb2.AccessLog:
    """``server``: at an inbound chain."""
    source = substitution_format_string_pb2.SubstitutionFormatString(omit_empty_values=True)
    source.json_format.update({tap.SIDE: tap.SERVER if server else tap.CLIENT, **tap.FIELDS})
    source.formatters.extend(formatters(str(tap.FIELDS)))
    config = file_pb2.FileAccessLog(path=tap.FILE, log_format=source)
    out = accesslog_pb2.AccessLog(name="envoy.access_loggers.file", typed_config=pb.any_of(config))
    out.filter.runtime_filter.runtime_key = tap.RUNTIME
    out.filter.runtime_filter.percent_sampled.SetInParent()
    # otherwise Envoy takes its random number from the request's id, for ten times the cost of all the rest
    out.filter.runtime_filter.use_independent_randomness = True
    return out
