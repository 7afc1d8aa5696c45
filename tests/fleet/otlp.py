"""An OpenTelemetry collector for tests: takes pushes and decodes them by Google's protobuf, with the messages as
opentelemetry-proto 1.x has them, written down here once more."""

import http.server
import threading

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto
MESSAGES = {
    "Request": [("resource_metrics", 1, "*ResourceMetrics")],
    "ResourceMetrics": [("resource", 1, "Resource"), ("scope_metrics", 2, "*ScopeMetrics")],
    "Resource": [("attributes", 1, "*KeyValue")],
    "KeyValue": [("key", 1, "string"), ("value", 2, "AnyValue")],
    "AnyValue": [("string_value", 1, "string"), ("int_value", 3, "int64")],
    "ScopeMetrics": [("scope", 1, "Scope"), ("metrics", 2, "*Metric")],
    "Scope": [("name", 1, "string"), ("version", 2, "string")],
    "Metric": [("name", 1, "string"), ("description", 2, "string"), ("unit", 3, "string"), ("gauge", 5, "Gauge"),
               ("sum", 7, "Sum"), ("exponential_histogram", 10, "ExponentialHistogram")],
    "Gauge": [("data_points", 1, "*NumberDataPoint")],
    "Sum": [("data_points", 1, "*NumberDataPoint"), ("aggregation_temporality", 2, "int32"), ("is_monotonic", 3, "bool")],
    "ExponentialHistogram": [("data_points", 1, "*ExponentialHistogramDataPoint"), ("aggregation_temporality", 2, "int32")],
    "NumberDataPoint": [("attributes", 7, "*KeyValue"), ("start_time_unix_nano", 2, "fixed64"),
                        ("time_unix_nano", 3, "fixed64"), ("as_double", 4, "double")],
    "ExponentialHistogramDataPoint": [
        ("attributes", 1, "*KeyValue"), ("start_time_unix_nano", 2, "fixed64"), ("time_unix_nano", 3, "fixed64"),
        ("count", 4, "fixed64"), ("sum", 5, "double"), ("scale", 6, "sint32"), ("zero_count", 7, "fixed64"),
        ("positive", 8, "Buckets"), ("exemplars", 11, "*Exemplar"), ("min", 12, "double"), ("max", 13, "double"),
        ("zero_threshold", 14, "double")],
    "Buckets": [("offset", 1, "sint32"), ("bucket_counts", 2, "*uint64")],
    "Exemplar": [("filtered_attributes", 7, "*KeyValue"), ("time_unix_nano", 2, "fixed64"), ("as_double", 3, "double")],
}


def request_class():
    file = descriptor_pb2.FileDescriptorProto(name="otlp.proto", package="otlp", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            repeated, kind = kind.startswith("*"), kind.lstrip("*")
            entry = message.field.add(name=field, number=number,
                                      label=FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL)
            if kind in MESSAGES:
                entry.type, entry.type_name = FIELD.TYPE_MESSAGE, ".otlp." + kind
            else:
                entry.type = getattr(FIELD, "TYPE_" + kind.upper())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName("otlp.Request"))


REQUEST = request_class()


def unknown_fields(message):
    """Of it and of all in it: what a descriptor above has not."""
    count = len(message.UnknownFields())
    for field, value in message.ListFields():
        if field.type == FIELD.TYPE_MESSAGE:
            count += sum(map(unknown_fields, value if field.label == FIELD.LABEL_REPEATED else [value]))
    return count


HOLD = "hold"


class Collector:
    """Answers with what `script` yields, then with 200. None: closes without a word. HOLD: takes it and says nothing
    for as long as the collector is there."""

    def __init__(self, port=0, script=()):
        self.requests, self.asked = [], 0
        self.script, self.ended = iter(script), threading.Event()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.asked += 1
                answer = next(collector.script, 200)
                if answer is None:
                    return
                status, headers = answer if isinstance(answer, tuple) else (answer, {})
                if status in (200, HOLD):
                    assert self.headers["Content-Type"] == "application/x-protobuf" and self.path == "/v1/metrics"
                    collector.requests.append(REQUEST.FromString(body))
                if status == HOLD:
                    collector.ended.wait()
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/metrics"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def metrics(self, index=-1):
        return {metric.name: metric for metric in self.requests[index].resource_metrics[0].scope_metrics[0].metrics}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
