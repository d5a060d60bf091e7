"""Amazon Bedrock's shapes, both directions: Converse, and the records and jobs of batch inference.

https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference.html. Knows nothing of HTTP but status codes.
"""
