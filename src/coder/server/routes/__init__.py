"""One module per noun of the API. A route checks, asks and answers; it holds no rule of its own."""
