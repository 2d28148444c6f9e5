/* A program in C that records orders inside of a span, and then dies if it is told to.
 *
 *     cargo xtask capi /usr/local
 *     cc shop.c $(pkg-config --cflags --libs outlive) -o shop
 *
 * With the static library, which wants no file but the program's own, -l:liboutlive.a in place of -loutlive:
 *
 *     cc shop.c $(pkg-config --cflags --libs --static outlive | sed s/-loutlive/-l:liboutlive.a/) -o shop
 *
 *     ./shop STATE 1000 die; outlive --state STATE show shop
 */
#include <outlive.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(outlive_status status, outlive_error **error) {
  if (status == OUTLIVE_OK)
    return;
  fprintf(stderr, "shop: %s\n", error ? outlive_error_message(*error) : outlive_status_text(status));
  exit(1);
}

int main(int argc, char **argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: shop STATE ORDERS [die]\n");
    return 2;
  }
  outlive_error *error = NULL;
  outlive_recorder *recorder = NULL;
  struct outlive_options options = {
      .type_size = sizeof options,
      .name = "shop",
      .version = "1.0",
      .state = argv[1],
      .area = "file",
  };
  must(outlive_recorder_start(&options, &recorder, &error), &error);
  printf("previous: %u %s\n", outlive_previous_verdict(recorder),
         outlive_previous_path(recorder) ? outlive_previous_path(recorder) : "none");

  const struct outlive_field fields[] = {
      {.name = "id", .type = OUTLIVE_U64},    {.name = "customer", .type = OUTLIVE_TEXT},
      {.name = "price", .type = OUTLIVE_F64}, {.name = "paid", .type = OUTLIVE_BOOL},
      {.name = "change", .type = OUTLIVE_I8},
  };
  const struct outlive_field day[] = {{.name = "weekday", .type = OUTLIVE_TEXT}};
  const outlive_event *order, *open_day;
  must(outlive_event_declare("shop", "order", fields, 5, &order, &error), &error);
  must(outlive_span_declare("shop", "open", day, 1, &open_day, &error), &error);

  struct outlive_span span;
  must(outlive_span_begin(open_day, (struct outlive_value[]){outlive_text("Monday", 6)}, 1, &span), NULL);
  const char *customer = "Ada";
  for (uint64_t id = 1; id <= strtoull(argv[2], NULL, 10); id++) {
    const struct outlive_value values[] = {
        outlive_u64(id),        outlive_text(customer, strlen(customer)),
        outlive_f64(id * 0.25), outlive_bool(id % 2),
        outlive_i8(-3),
    };
    must(outlive_record(order, values, 5), NULL);
  }
  if (argc > 3) /* No code runs from here on. */
    raise(SIGKILL);
  must(outlive_span_end(&span), NULL);
  outlive_recorder_close(&recorder);
  return 0;
}
