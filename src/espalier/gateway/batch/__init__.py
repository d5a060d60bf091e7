"""Batch inference: a file of requests in, a file of answers out, through the same desk as every other request.

records   what a batch is, how it stands, and where that is kept        files    the files clients upload and fetch
source    the input by line, never whole in memory                      journal  answers as they come, fsynced
shapes    whose words the lines are in                                  work     one batch from input to output
runner    takes batches off the durable queue                           routes   OpenAI's HTTP routes
"""
