"""The live dashboard: what ``%gpumem`` opens in a notebook.

    Source (the session) -> Dashboard (a thread) -> messages -> widget -> front/*.js in the page

``dashboard`` keeps the state and decides what to send; ``widget`` carries it; ``pictures`` are Bokeh models;
``panels/`` are the tables, one file each; ``front/`` draws. The page has its own copy of the history, so windows,
zooming, sorting and pausing never wait for the kernel. Nothing here knows IPython or the session.
"""
