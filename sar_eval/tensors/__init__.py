"""Reading files of tensors safely, and where published weights are kept."""
