/* Private to cli/report.c. */
#ifndef FC_CLI_REPORT_STYLE_H
#define FC_CLI_REPORT_STYLE_H

extern const char fc_report_style[];

#endif
