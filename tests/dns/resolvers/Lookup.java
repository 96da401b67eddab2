import java.util.Hashtable;
import javax.naming.NameNotFoundException;
import javax.naming.directory.Attributes;
import javax.naming.directory.InitialDirContext;

/** Every address of each name by the DNS client that Java carries (JNDI). It knows no search list: names are whole. */
public class Lookup {
    public static void main(String[] names) throws Exception {
        Hashtable<String, String> settings = new Hashtable<>();
        settings.put("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
        InitialDirContext context = new InitialDirContext(settings);
        for (String name : names) {
            boolean any = false;
            // One type at a time: for several it would ask for ANY.
            for (String type : new String[] {"A", "AAAA"}) {
                try {
                    Attributes found = context.getAttributes(name, new String[] {type});
                    for (int i = 0; found.get(type) != null && i < found.get(type).size(); i++) {
                        System.out.println(name + " " + found.get(type).get(i));
                        any = true;
                    }
                } catch (NameNotFoundException e) {
                    // As if there were no records.
                }
            }
            if (!any) {
                System.out.println(name + " none");
            }
        }
    }
}
