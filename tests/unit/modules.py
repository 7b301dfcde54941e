"""Small Wasm modules for Envoy (the ABI of proxy-wasm 0.2.1), assembled here so that no compiler is needed.

``stamping`` writes its configuration into each response's header ``x-wasm``; ``closing`` closes each connection.
"""

I32, END, CALL, DROP = 0x7F, 0x0B, 0x10, 0x1A
CONFIGURATION, RESPONSE_HEADERS, DOWNSTREAM = 7, 2, 2
NAME, AT, FREE = b"x-wasm", 16, 1024
"""The header, where it stands in memory, and where what the host gives is put."""


def _number(n):
    """LEB128, signed: constants and lengths alike are small."""
    out = b""
    while True:
        byte, n = n & 0x7F, n >> 7
        if (n == 0 and not byte & 0x40) or (n == -1 and byte & 0x40):
            return out + bytes([byte])
        out += bytes([byte | 0x80])


def _size(n):
    """LEB128, unsigned."""
    out = b""
    while n > 0x7F:
        out, n = out + bytes([n & 0x7F | 0x80]), n >> 7
    return out + bytes([n])


def _list(items):
    return _size(len(items)) + b"".join(items)


def _text(value):
    return _size(len(value)) + value


def _section(number, content):
    return bytes([number]) + _size(len(content)) + content


def const(n):
    return b"\x41" + _number(n)


def load(address):
    return const(address) + b"\x28\x02\x00"


def param(n):
    return b"\x20" + _size(n)


def call(function):
    return bytes([CALL]) + _size(function)


def module(imports, functions):
    """``imports``: (name, number of parameters) of host functions that return an i32; ``functions``: (name, parameters,
    whether it returns an i32, code). All parameters are i32."""
    types = [bytes([0x60]) + _list([bytes([I32])] * n) + _list([bytes([I32])]) for _, n in imports]
    types += [bytes([0x60]) + _list([bytes([I32])] * n) + _list([bytes([I32])] * r) for _, n, r, _ in functions]
    imported = [_text(b"env") + _text(n.encode()) + b"\x00" + _size(i) for i, (n, _) in enumerate(imports)]
    first = len(imports)
    exports = [_text(b"memory") + b"\x02\x00"]
    exports += [_text(n.encode()) + b"\x00" + _size(first + i) for i, (n, *_) in enumerate(functions)]
    bodies = [_text(b"\x00" + code + bytes([END])) for *_, code in functions]
    data = [b"\x00" + const(AT) + bytes([END]) + _text(NAME)]
    parts = (
        (1, _list(types)),
        (2, _list(imported)),
        (3, _list([_size(first + i) for i in range(len(functions))])),
        (5, _list([b"\x00\x02"])),
        (7, _list(exports)),
        (10, _list(bodies)),
        (11, _list(data)),
    )
    return b"\0asm\1\0\0\0" + b"".join(_section(n, content) for n, content in parts)


_ALWAYS = [
    ("proxy_abi_version_0_2_1", 0, False, b""),
    ("_initialize", 0, False, b""),
    ("proxy_on_memory_allocate", 1, True, const(FREE)),
    ("proxy_on_vm_start", 2, True, const(1)),
    ("proxy_on_context_create", 2, False, b""),
]


def stamping():
    keep = const(CONFIGURATION) + const(0) + param(1) + const(0) + const(4) + call(0) + bytes([DROP]) + const(1)
    add = const(RESPONSE_HEADERS) + const(AT) + const(len(NAME)) + load(0) + load(4) + call(1)
    return module(
        [("proxy_get_buffer_bytes", 5), ("proxy_add_header_map_value", 5)],
        [
            *_ALWAYS,
            ("proxy_on_configure", 2, True, keep),
            ("proxy_on_response_headers", 3, True, add + bytes([DROP]) + const(0)),
        ],
    )


def closing():
    close = const(DOWNSTREAM) + call(0) + bytes([DROP]) + const(1)
    return module(
        [("proxy_close_stream", 1)],
        [*_ALWAYS, ("proxy_on_configure", 2, True, const(1)), ("proxy_on_new_connection", 1, True, close)],
    )
