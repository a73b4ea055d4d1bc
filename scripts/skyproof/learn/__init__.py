"""Training and the judging of trained models, independent of any one system."""
