"""A task's corpus, queries and qrels: read from local files, the Hugging Face cache or the hub."""
