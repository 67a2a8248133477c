"""Results of an evaluation: tables, the CSV files of the study, thresholds."""
