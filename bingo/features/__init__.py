"""What a frozen network says about every image, computed once: features and keys."""
