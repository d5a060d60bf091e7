"""The built-in steps, one a file, so that each step's cache key covers only the modules it really uses.

A step here is thin: it joins the callables of one or two stages, which do not know each other, and the pipeline that
runs it. What it computes lives in the stages.
"""
