"""Answers as people read them: results in, text, HTML and pictures out.

Every view is a function of a result of ``analysis``. HTML is complete in itself: no script, nothing loaded from
elsewhere, so it stays what it was in a saved notebook, in nbconvert and in a mail. What a user could have chosen
(file names, labels, device names) reaches HTML only through ``views.html.tag``, which escapes it.
"""
