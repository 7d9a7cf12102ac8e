"""Everything that computes: torch, OpenVINO and ONNX Runtime, batches, pooling, devices."""
