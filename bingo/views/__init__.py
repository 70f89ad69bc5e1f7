"""Views: which images and crops a step gets, and the loader that cuts them."""
