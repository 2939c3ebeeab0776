# cython: language_level=3
"""The loops that every event goes through, in C. ``plain`` makes the same bytes, and says what they do."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeASCII
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcmp, memcpy

from datetime import UTC, datetime

import msgspec
from msgspec import UNSET, Raw

from dualstream_lab.event import Event, is_too_deep

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    bint PyUnicode_IS_COMPACT_ASCII(object text)

NAME = "compiled"

cdef object _encode = msgspec.json.Encoder().encode
cdef object _decode_raw = msgspec.json.Decoder(Raw).decode
cdef object _utc = UTC, _unset = UNSET, _raw = Raw, _event = Event, _datetime = datetime
cdef bytes _occurred = b'"occurred_at":"'
cdef enum:
    OVERHEAD = 15
    TABLE = 16384
    DEEP = 1024  # bytes of an event below which it cannot be nested too deep
    DIGITS = 24


cdef inline Py_ssize_t varint_size(Py_ssize_t number) noexcept nogil:
    cdef unsigned long long rest = <unsigned long long>number << 1
    cdef Py_ssize_t size = 1
    while rest > 0x7F:
        rest >>= 7
        size += 1
    return size


cdef inline char *put_varint(char *at, Py_ssize_t number) noexcept nogil:
    cdef unsigned long long rest = <unsigned long long>number << 1
    while rest > 0x7F:
        at[0] = <char>((rest & 0x7F) | 0x80)
        at += 1
        rest >>= 7
    at[0] = <char>rest
    return at + 1


cdef inline char *put(char *at, const char *text, Py_ssize_t size) noexcept nogil:
    memcpy(at, text, size)
    return at + size


cdef inline char *put_bytes(char *at, bytes text) noexcept:
    return put(at, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef inline char *put_number(char *at, long long number) noexcept nogil:
    """One that is not negative, in decimal."""
    cdef char digits[DIGITS]
    cdef int place = DIGITS
    while True:
        place -= 1
        digits[place] = <char>(48 + number % 10)
        number //= 10
        if not number:
            return put(at, digits + place, DIGITS - place)


cdef bytes joined(
    bytes key, bytes value, bytes count, bytes kind, bytes header, const char *name, Py_ssize_t name_size,
    const char *when, Py_ssize_t when_size, bytes more,
):
    cdef Py_ssize_t value_size = PyBytes_GET_SIZE(value)
    cdef Py_ssize_t size = (
        PyBytes_GET_SIZE(key) + varint_size(value_size) + value_size + PyBytes_GET_SIZE(count)
        + PyBytes_GET_SIZE(kind) + PyBytes_GET_SIZE(header) + 6 + varint_size(name_size) + name_size
        + 8 + varint_size(when_size) + when_size + PyBytes_GET_SIZE(more)
    )
    made = PyBytes_FromStringAndSize(NULL, size)
    cdef char *at = PyBytes_AS_STRING(made)
    at = put_bytes(at, key)
    at = put_bytes(put_varint(at, value_size), value)
    at = put_bytes(at, count)
    at = put_bytes(at, kind)
    at = put_bytes(at, header)
    at = put(at, b"\x0ace_id", 6)
    at = put(put_varint(at, name_size), name, name_size)
    at = put(at, b"\x0ece_time", 8)
    at = put(put_varint(at, when_size), when, when_size)
    put_bytes(at, more)
    return made


def record(route, kind, bytes value, str name, bytes when, bytes count, bytes more):
    cdef Py_ssize_t size
    cdef const char *text = PyUnicode_AsUTF8AndSize(name, &size)
    return joined(
        route.key, value, count, kind[1], route.header, text, size, PyBytes_AS_STRING(when),
        PyBytes_GET_SIZE(when), more,
    )


cdef inline bint is_id(const char *text, Py_ssize_t size) noexcept nogil:
    """1 to 128 printable ASCII characters without space, quote and backslash."""
    cdef Py_ssize_t place
    cdef unsigned char letter
    if not 1 <= size <= 128:
        return False
    for place in range(size):
        letter = <unsigned char>text[place]
        if letter <= 32 or letter >= 127 or letter == 34 or letter == 92:
            return False
    return True


cdef const char *find_time(bytes value, Py_ssize_t *size) noexcept:
    """The time in an event's JSON: a quote within a text is escaped, so that nothing before it looks like it."""
    cdef const char *at = PyBytes_AS_STRING(value)
    cdef const char *end = at + PyBytes_GET_SIZE(value) - 15
    cdef const char *quote
    while at < end:
        at = <const char *>memchr(at, 34, end - at)
        if at == NULL:
            return NULL
        if memcmp(at, PyBytes_AS_STRING(_occurred), 15) == 0:
            at += 15
            quote = <const char *>memchr(at, 34, end + 15 - at)
            if quote == NULL:
                return NULL
            size[0] = quote - at
            return at
        at += 1
    return NULL


cdef bytes encoded(event):
    """An event's JSON; None where it is for ``encode_event`` to say."""
    cdef bytes value
    try:
        value = _encode(event)
        if type(event.data) is _raw:
            _decode_raw(event.data)
            if not value.isascii():
                value.decode()
    except (TypeError, ValueError, RecursionError):
        return None
    if PyBytes_GET_SIZE(value) > DEEP and is_too_deep(value):
        return None
    return value


def encode(
    events, Py_ssize_t index, ids, timestamp, dict parts, new_part, routes, types, bytes count, bytes more,
    Py_ssize_t limit,
):
    cdef Py_ssize_t place, name_size, when_size, total = len(events)
    cdef const char *name
    cdef const char *when
    cdef PyObject *found_kind
    cdef PyObject *found_route
    cdef bytes value, made
    cdef list indices, kinds, of, records
    cdef dict columns = {}
    for place in range(index, total):
        event = events[place]
        if type(event) is not _event or event.traceparent is not _unset:
            return place
        event_id, moment = event.id, event.occurred_at
        if type(event_id) is not str or type(moment) is not _datetime or moment.tzinfo is not _utc:
            return place
        if not PyUnicode_IS_COMPACT_ASCII(event_id):
            return place
        name = PyUnicode_AsUTF8AndSize(event_id, &name_size)
        if not is_id(name, name_size):
            return place
        try:
            found_kind = PyDict_GetItemWithError(types, event.type)
            found_route = PyDict_GetItemWithError(routes, (event.source_type, event.source_id))
        except TypeError:  # a name that cannot be looked up
            return place
        if found_kind == NULL or found_route == NULL:
            return place
        kind, route = <object>found_kind, <object>found_route
        value = encoded(event)
        if value is None:
            return place
        when = find_time(value, &when_size)
        if when == NULL:
            return place
        made = joined(route.key, value, count, kind[1], route.header, name, name_size, when, when_size, more)
        if PyBytes_GET_SIZE(made) > limit:
            return place
        partition = route.partition
        lists = columns.get(partition)
        if lists is None:
            part = parts.get(partition)
            if part is None:
                part = parts[partition] = new_part(ids, partition, timestamp)
            lists = columns[partition] = (part.indices, part.types, part.routes, part.records)
        indices, kinds, of, records = lists
        indices.append(place)
        kinds.append(kind[0])
        of.append(route)
        records.append(made)
    return total


def frame(list records, Py_ssize_t place, Py_ssize_t room, bytes middle):
    cdef Py_ssize_t first = place, taken = 0, size = 0, exact = 0, fixed = PyBytes_GET_SIZE(middle)
    cdef Py_ssize_t length, grown
    cdef bytes each
    for each in records:
        length = PyBytes_GET_SIZE(each)
        grown = size + length + OVERHEAD
        if place == TABLE or (grown > room and place):
            break
        size = grown
        length += fixed + varint_size(place)
        exact += varint_size(length) + length
        place += 1
    taken = place - first
    made = PyBytes_FromStringAndSize(NULL, exact)
    cdef char *at = PyBytes_AS_STRING(made)
    for place in range(taken):
        each = records[place]
        at = put_varint(at, fixed + varint_size(first + place) + PyBytes_GET_SIZE(each))
        at = put_bytes(at, middle)
        at = put_varint(at, first + place)
        at = put_bytes(at, each)
    return made, taken, size


cdef inline char *put_text(char *at, text) except NULL:
    cdef Py_ssize_t size
    cdef const char *utf8 = PyUnicode_AsUTF8AndSize(text, &size)
    return put(at, utf8, size)


cdef inline Py_ssize_t text_size(text) except -1:
    cdef Py_ssize_t size
    PyUnicode_AsUTF8AndSize(text, &size)
    return size


def publish_commands(part, str epoch, ts, *, bint details):
    cdef long long base = part.base, partition = part.partition, number
    cdef Py_ssize_t place, size, most, room = 0
    cdef list packed = [], indices = part.indices, types = part.types, routes = part.routes
    cdef char *body = NULL
    cdef char *at
    ids = part.event_ids
    end = f'","ts":{ts}}}'
    log = f'"log":"{epoch}","pub":"'
    before, log = (f',"pos":"{partition}:', f'",{log}') if base >= 0 else (",", log)
    try:
        for place in range(len(indices)):
            route = routes[place]
            event_id, nonce, source, command = ids[indices[place]], route.nonce, route.source_id_json, route.command
            most = (
                text_size(event_id) + text_size(types[place]) + text_size(source) + text_size(nonce)
                + text_size(before) + text_size(log) + text_size(end) + 128
            )
            if most > room:
                free(body)
                room = 2 * most
                body = <char *>malloc(room)
                if body == NULL:
                    raise MemoryError
            at = put(body, b'{"id":"', 7)
            at = put_text(at, event_id)
            at = put(at, b'","type":', 9)
            at = put_text(at, types[place])
            at = put(at, b',"source_id":', 13)
            at = put_text(at, source)
            if details:
                number = route.count + 1
                route.count = number
                at = put_text(at, before)
                if base >= 0:
                    at = put_number(at, base + place)
                at = put_text(at, log)
                at = put_text(at, nonce)
                at = put(at, b":", 1)
                at = put_number(at, number)
                at = put_text(at, end)
            else:
                at = put(at, b"}", 1)
            size = at - body
            packed.append(f"{command}{size}\r\n{PyUnicode_DecodeASCII(body, size, NULL)}\r\n")
    finally:
        free(body)
    return packed
