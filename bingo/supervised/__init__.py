"""Training on labels: linear classifiers by published protocols, fine-tuning on few labels; and the `eval` stage."""
