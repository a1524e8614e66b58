"""How well a drive went: from traces of drives to the scores that benchmarks made of them.

A `Trace` (trace.py) holds what happened; one file per score has its table of terms: pdm.py (NAVSIM), nuplan.py,
carla.py; rss.py and rater.py stand for themselves. suites.py makes means with intervals of them.
"""
