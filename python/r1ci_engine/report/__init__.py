"""Looking at a run: metrics log, accuracy summary, terminal view, one static HTML page.

Reads run folders only, finished or not; no torch, no network. Everything a model wrote is
hostile text here: it is escaped for the medium it is shown in.
"""
