"""The report: saved results as one self-contained HTML page.

`content` has the page's records, `gathering` fills them from a leaderboard, `queries` packs the
single queries, `page` fills the template. The plots are drawn in the reader's browser by
Observable Plot, whose files lie in ``assets/vendor`` as they were published, licences beside them.
"""
