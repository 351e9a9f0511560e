-- Enqueues very many jobs without unique keys. The rows follow in COPY's binary format.
copy reveille.jobs (queue, kind, payload, priority, max_attempts, available_at, key, timeout, tags, metadata, parent_id)
from stdin with (format binary)
