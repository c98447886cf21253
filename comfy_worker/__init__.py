"""The walk of a job: from what a client sent to the pictures that go back."""
