"""A report by the calendar: what became of the last day's jobs, queue by queue."""
