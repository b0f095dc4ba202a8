"""A long run under retention: does anything grow, and do followers come back while it goes on?"""
