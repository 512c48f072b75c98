"""What any implementation of these saliency methods must do: docs/conformance.md says how to ask yours."""
