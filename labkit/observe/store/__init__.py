"""The embedded store of logs and spans: one process, OTLP over HTTP in, fixed questions out, DuckDB below."""
