"""One module per way of training: each makes a Trainable and hands it to the loop."""
