/* Calendar dates: from text, and out of file names. */
#include "base.h"

#include <ctype.h>
#include <string.h>

enum { FIRST_YEAR = 1950, LAST_YEAR = 2099 };

static bool is_leap(int year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && is_leap(year));
}

/* The number that `count` digits make, or -1. */
static int digits(const char *text, int count)
{
    int value = 0;
    for (int i = 0; i < count; i++) {
        if (!isdigit((unsigned char)text[i])) return -1;
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

static bool from_month(int year, int month, int day, trn_date *out)
{
    if (year < FIRST_YEAR || year > LAST_YEAR || month < 1 || month > 12) return false;
    if (day < 1 || day > days_in_month(year, month)) return false;
    *out = (trn_date){.year = year, .month = month, .day = day, .day_of_year = day};
    for (int m = 1; m < month; m++)
        out->day_of_year += days_in_month(year, m);
    return true;
}

static bool from_day_of_year(int year, int day, trn_date *out)
{
    if (year < FIRST_YEAR || year > LAST_YEAR || day < 1 || day > 365 + is_leap(year)) return false;
    int month = 1, rest = day;
    while (rest > days_in_month(year, month))
        rest -= days_in_month(year, month++);
    *out = (trn_date){.year = year, .month = month, .day = rest, .day_of_year = day};
    return true;
}

static size_t digit_run(const char *text)
{
    return strspn(text, "0123456789");
}

/* Length of the date that text begins with, or 0. */
static size_t date_at(const char *text, trn_date *out)
{
    enum { PLAIN = 8, ORDINAL = 7, DASHED = 10, WITH_TIME = 14 };
    size_t run = digit_run(text);
    if ((run == PLAIN || run == WITH_TIME) &&
        from_month(digits(text, 4), digits(text + 4, 2), digits(text + 6, 2), out))
        return run;
    if (run == ORDINAL && from_day_of_year(digits(text, 4), digits(text + 4, 3), out)) return run;
    bool dashed =
        run == 4 && text[4] == '-' && digit_run(text + 5) == 2 && text[7] == '-' && digit_run(text + 8) == 2;
    return dashed && from_month(digits(text, 4), digits(text + 5, 2), digits(text + 8, 2), out) ? DASHED : 0;
}

bool trn_date_parse(const char *text, trn_date *out)
{
    size_t length = date_at(text, out);
    return length && length < 14 && !text[length];
}

bool trn_date_find(const char *file_name, trn_date *out)
{
    for (const char *s = file_name; *s; s++) {
        bool starts = isdigit((unsigned char)*s) && (s == file_name || !isdigit((unsigned char)s[-1]));
        if (starts && date_at(s, out)) return true;
    }
    return false;
}
