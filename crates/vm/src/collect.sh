#!/bin/sh
# collect NAME: what the kernel shows of every tracefs instance, in /out/NAME. Nothing is consumed.
tracing=/sys/kernel/tracing
mkdir -p /out/$1
dmesg > /out/$1/dmesg
cp $tracing/saved_cmdlines $tracing/printk_formats $tracing/trace_clock /out/$1/ 2>/dev/null
for instance in $tracing/instances/*; do
  [ -d $instance ] || continue
  out=/out/$1/instances/${instance##*/}
  mkdir -p $out/per_cpu
  ls $instance > $out/ls
  for file in last_boot_info tracing_on trace_clock buffer_size_kb trace; do
    [ ! -e $instance/$file ] || cat $instance/$file > $out/$file 2>/dev/null
  done
  for cpu in $instance/per_cpu/*; do
    mkdir -p $out/per_cpu/${cpu##*/}
    for file in stats trace buffer_meta; do
      [ ! -e $cpu/$file ] || cat $cpu/$file > $out/per_cpu/${cpu##*/}/$file 2>/dev/null
    done
  done
done
