"""What shorter, compressed and indexed vectors cost: scores, recall, memory and speed."""
