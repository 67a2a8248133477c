"""What chex-report is made of: results read and told apart, ranked, drawn, and written as a page."""
