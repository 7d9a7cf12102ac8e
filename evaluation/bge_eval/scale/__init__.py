"""Beyond one machine: parts of corpora on many, what is done of them, a cluster."""
