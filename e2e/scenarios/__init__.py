"""What must hold on a real cluster: each module is one promise, told as scenarios under load."""
