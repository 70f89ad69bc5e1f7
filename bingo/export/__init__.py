"""Weights for others: torchvision, timm, ONNX, detectron2, with a model card and hashes."""
