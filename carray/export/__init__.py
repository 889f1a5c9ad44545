"""Model packages as files that need no carray: ONNX, torch.export and OpenVINO."""
