"""The page report.html: its template, its pictures, its tables and its words."""
