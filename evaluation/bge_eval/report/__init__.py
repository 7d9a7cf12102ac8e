"""The report: saved results as one self-contained HTML page.

`content` gathers what the page says, `queries` packs what it says of single queries, `page`
fills the template. The plots are drawn in the reader's browser by Observable Plot, whose files
lie in ``assets/vendor`` as they were published, licences beside them.
"""
